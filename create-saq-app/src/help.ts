export const HELP = `Generate an Express + PostgreSQL application in TypeScript with a job queue, a worker,
a live web UI and a small front end.

Usage:
  npm create saq-app@latest [folder] -- [flags]
  create-saq-app [folder] [flags]

  folder                    new folder, "." for this one, or @scope/name (default: my-saq-app)

Flags:
  -y, --yes                 take the default of everything that was not said; ask nothing
      --no-frontend         leave out the front end (Vite, React)
      --db <which>          embedded, docker, url, or a postgresql:// URL (default: auto, which is
                            Docker if it runs, else embedded); url leaves DATABASE_URL in .env
                            for you to fill
      --port <number>       port of the API (default: 8000)
      --no-install          do not run npm install
      --no-git              do not make a git repository with a first commit
      --force               write into a folder that is not empty; deletes nothing, and lists
                            what it replaces
      --dry-run             show what would be written, and write nothing
      --json                answer with one JSON object; ask nothing
  -h, --help                this text
  -v, --version             the version

  --install, --git and --frontend are the defaults and can be said too.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 stopped by Ctrl-C.

Without a terminal nothing is asked, and every default that was used is printed. For example:
  npm create -y saq-app@latest my-app -- --yes --db embedded
  npm create -y saq-app@latest my-app -- --yes --no-frontend --no-install --no-git --json
`;
