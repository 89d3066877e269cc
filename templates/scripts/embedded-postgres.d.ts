export interface ClusterOptions {
  /** Folder of the data; made on first use. As root it may become a link to a folder the server's user can enter. */
  dataDir: string;
  /** Port on 127.0.0.1; 0 takes a free one. Ignored when the cluster already runs. */
  port: number;
  /** Password of the superuser `postgres`, set when the cluster is made. */
  password: string;
  /** Where the server writes its log; `server.log` in the data folder unless given. */
  logFile?: string;
  /** Server settings, given as `-c name=value`. */
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

/** Throws {@link PortTakenError} when `port` belongs to another program. */
export function startCluster(options: ClusterOptions): Promise<Cluster>;

/** Returns false when it was not running. `immediate` skips the final checkpoint: only for data that are thrown away. */
export function stopCluster(options: { dataDir: string; immediate?: boolean }): Promise<boolean>;

/** Stops the cluster and removes its data, wherever they lie. */
export function destroyCluster(options: { dataDir: string }): Promise<void>;

export function clusterStatus(options: { dataDir: string }): ClusterStatus;

export function freePort(): Promise<number>;

/** Whether no other program listens on a port of this machine (`host` 127.0.0.1 unless given). */
export function isFree(port: number, host?: string): Promise<boolean>;

/** Why this user cannot listen on a port, as Node's error code (EADDRINUSE, EACCES, ...); undefined when it can. */
export function bindError(port: number, host?: string): Promise<string | undefined>;
