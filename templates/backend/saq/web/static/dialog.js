// Asks the user to confirm a change.
import { h } from "./dom.js";

/**
 * @param {{ question: string, consequence: string, label: string }} text
 * @returns {Promise<boolean>} true if the user agreed
 */
export function confirm({ question, consequence, label }) {
  const cancel = h("button", { type: "button", class: "button", autofocus: true }, "Cancel");
  const agree = h("button", { type: "button", class: "button button-primary" }, label);
  const dialog = /** @type {HTMLDialogElement} */ (
    h(
      "dialog",
      { class: "dialog", "aria-labelledby": "dialog-question", "aria-describedby": "dialog-consequence" },
      h("h2", { id: "dialog-question" }, question),
      h("p", { id: "dialog-consequence" }, consequence),
      h("div", { class: "actions" }, cancel, agree),
    )
  );
  document.body.append(dialog);
  return new Promise((resolve) => {
    cancel.addEventListener("click", () => dialog.close());
    agree.addEventListener("click", () => dialog.close("agreed"));
    // The event also comes after Escape, which closes the dialog without a return value.
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "agreed");
    });
    dialog.showModal();
  });
}
