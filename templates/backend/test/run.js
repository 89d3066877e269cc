// A shell with NODE_ENV=production must not run the tests as production.
process.env.NODE_ENV = "test";
// Jest by its package name, because the folder it is installed in differs: the workspace's own, or its root's.
await import("jest/bin/jest");
