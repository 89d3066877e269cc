export function Header() {
  return (
    <header className="header">
      <div className="header-inner">
        <h1>{import.meta.env.VITE_APP_NAME}</h1>
        {/* Served by the backend: a plain link, not a page of this application. */}
        <a className="button-link" href="/saq">
          Queue dashboard
        </a>
      </div>
    </header>
  );
}
