export interface ClusterOptions {
  /**
   * Folder of the data, created on first use. If the caller is root, it may become a link to a folder that the server's
   * user can enter.
   */
  dataDir: string;
  /** Port on 127.0.0.1; 0 selects a free port. It is ignored if the cluster already runs. */
  port: number;
  /** Password of the superuser `postgres`. It is set when the cluster is created. */
  password: string;
  /** Log file of the server. @defaultValue `server.log` in the data folder */
  logFile?: string;
  /** Server settings, passed as `-c name=value`. */
  settings?: Record<string, string>;
}

export interface Cluster {
  port: number;
  url(database: string): string;
  stop(): Promise<void>;
}

export interface ClusterStatus {
  exists: boolean;
  running: boolean;
  port: number | undefined;
  pid: number | undefined;
}

export class PortTakenError extends Error {
  constructor(port: number);
  readonly port: number;
}

export const HOST: "127.0.0.1";

/**
 * Starts the cluster, and creates it on first use. A cluster that already runs is returned unchanged.
 *
 * @throws PortTakenError if another program uses `port`
 */
export function startCluster(options: ClusterOptions): Promise<Cluster>;

/**
 * Stops the cluster. Returns false if it was not running. `immediate` skips the final checkpoint; use it only for data
 * that is deleted afterwards.
 */
export function stopCluster(options: { dataDir: string; immediate?: boolean }): Promise<boolean>;

/** Stops the cluster and deletes its data, also if `dataDir` is a link to another folder. */
export function destroyCluster(options: { dataDir: string }): Promise<void>;

export function clusterStatus(options: { dataDir: string }): ClusterStatus;

export function freePort(): Promise<number>;

/** Returns true if no other program listens on a port of this machine (`host` is 127.0.0.1 by default). */
export function isFree(port: number, host?: string): Promise<boolean>;

/**
 * Tries to listen on a port (`host` is 127.0.0.1 by default). Returns Node's error code (EADDRINUSE, EACCES, ...) if
 * this is not possible, else undefined.
 */
export function bindError(port: number, host?: string): Promise<string | undefined>;
