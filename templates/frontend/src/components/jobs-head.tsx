import { useRef } from "react";

export function JobsHead({ empty, onClear }: { empty: boolean; onClear: () => void }) {
  const title = useRef<HTMLHeadingElement>(null);

  function clear() {
    onClear();
    // The button disappears with the list. Focusing the title keeps keyboard users at this place of the page.
    title.current?.focus();
  }

  return (
    <div className="jobs-head">
      <h2 id="jobs-title" ref={title} tabIndex={-1}>
        Jobs from this browser
      </h2>
      {!empty && (
        <button type="button" onClick={clear}>
          Clear list
        </button>
      )}
    </div>
  );
}
