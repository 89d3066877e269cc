/** The only HTML page of the web UI. It contains no data except the root path; its script fetches everything else. */

/**
 * Returns the path under which browsers find the UI, without a trailing slash: "/saq/" becomes "/saq", "/" becomes "".
 */
export function normaliseRoot(path: string): string {
  return `/${path}`.replace(/\/{2,}/g, "/").replace(/\/$/, "");
}

export function renderPage(root: string): string {
  const path = escapeAttribute(root);
  return `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <meta name="root-path" content="${path}">
    <title>SAQ</title>
    <link rel="icon" href="${path}/static/favicon.svg" type="image/svg+xml">
    <link rel="stylesheet" href="${path}/static/style.css">
    <script type="module" src="${path}/static/app.js"></script>
  </head>
  <body>
    <a class="skip-link" href="#view">Skip to content</a>
    <header class="header">
      <nav class="header-inner" aria-label="Site">
        <a class="brand" href="${path}/">SAQ</a>
        <p class="connection" id="connection"></p>
        <a href="https://saq-py.readthedocs.io/" rel="noreferrer">Docs</a>
      </nav>
    </header>
    <p class="unreachable" id="unreachable" role="alert" hidden></p>
    <main class="layout" id="view" tabindex="-1"><noscript>This page needs JavaScript.</noscript></main>
  </body>
</html>
`;
}

function escapeAttribute(text: string): string {
  return text.replace(/[&"'<>]/g, (character) => `&#${character.charCodeAt(0)};`);
}
