// The command lines that are compared. Their versions are pinned here and not in a package.json, because only the
// published tarballs of these packages are needed, and no install.

/**
 * - `initializer`: the argument of `npm create`.
 * - `generate`: flags, after the name of the folder, to generate a project without questions, without an install and
 *   without a git repository; null if the program generates nothing.
 * - `withGit`: the same with a first commit; null if the program makes none.
 * - `published`: the version to fetch from the registry; without it, the package is made on this machine.
 */
export const contestants = {
  "create-saq-app": {
    initializer: "saq-app",
    generate: ["--yes", "--no-install", "--no-git"],
    withGit: ["--yes", "--no-install"],
  },
  "create-vite": {
    initializer: "vite",
    published: "9.3.0",
    generate: ["--template", "react-ts", "--no-interactive", "--no-immediate"],
    withGit: null,
  },
  "create-next-app": {
    initializer: "next-app",
    published: "16.4.3",
    generate: ["--yes", "--skip-install", "--use-npm", "--disable-git"],
    withGit: ["--yes", "--skip-install", "--use-npm"],
  },
  // A package whose program is an empty file. It shows the time that Node.js and npm take by themselves.
  "create-nothing": {
    initializer: "nothing",
    generate: null,
    withGit: null,
  },
};
