// A shell with NODE_ENV=production must not run the tests as production.
process.env.NODE_ENV = "test";
// Jest is imported by its package name, because its folder differs: it is in the workspace or at the workspaces' root.
await import("jest/bin/jest");
