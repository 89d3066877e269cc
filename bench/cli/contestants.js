// The command lines that are compared. Versions are pinned here: of these packages only the tarball is wanted, as
// published, so that they need no install of their own.

/**
 * `initializer` is what `npm create` is told. `generate` makes a project in the folder named before it, asking nothing,
 * without installing and without a git repository; `withGit` is the same with a first commit, where there is such a
 * thing. Both are null where nothing is generated. `published` is what the registry is asked for; without it the
 * package is made here.
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
  // A package whose program is an empty file: what Node.js and npm take by themselves.
  "create-nothing": {
    initializer: "nothing",
    generate: null,
    withGit: null,
  },
};
