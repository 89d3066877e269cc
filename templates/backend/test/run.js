// Jest by its package name, because the folder it is installed in differs: the workspace's own, or its root's.
import "jest/bin/jest";
