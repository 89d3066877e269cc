export const HELP = `Generate an Express + PostgreSQL application in TypeScript with a job queue, a worker,
a live web UI and a small front end.

Usage:
  npm create saq-app@latest [folder] -- [flags]
  create-saq-app [folder] [flags]

  folder                    new folder, "." for this one, or @scope/name (default: my-saq-app)

Flags:
  -y, --yes                 use the default of each option that is not given; ask nothing
      --no-frontend         leave out the front end (Vite, React)
      --db <which>          embedded, docker, url, or a postgresql:// URL (default: auto, which is
                            Docker if it runs, else embedded); with url, you set DATABASE_URL
                            in .env yourself
      --queue <which>       postgres or redis: where the queue stores its jobs (default: postgres);
                            your own data are in PostgreSQL in any case
      --port <number>       port of the API (default: 8000)
      --no-install          do not run npm install
      --no-git              do not create a git repository with a first commit
      --force               write into a folder that is not empty; deletes nothing, and lists
                            the files that it replaces
      --dry-run             show what would be written, and write nothing
      --json                print one JSON object; ask nothing
  -h, --help                print this text
  -v, --version             print the version

  --install, --git and --frontend are the defaults. They can also be given.

Exit codes: 0 success, 1 refused or failed, 2 wrong usage, 130 stopped by Ctrl-C.

Without a terminal, the program asks nothing and prints each default that it uses. For example:
  npm create -y saq-app@latest my-app -- --yes --db embedded
  npm create -y saq-app@latest my-app -- --yes --no-frontend --no-install --no-git --json
`;
