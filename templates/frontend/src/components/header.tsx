export function Header() {
  return (
    <header className="header">
      <div className="header-inner">
        <h1>{import.meta.env.VITE_APP_NAME}</h1>
        {/* A plain link: the backend serves this page, it is not a part of the front end. */}
        <a className="button-link" href="/saq">
          Queue dashboard
        </a>
      </div>
    </header>
  );
}
