export type Mode = "embedded" | "docker";

/** Why a mode was chosen: DB_MODE is set, it was the mode of the last start, or it is what this machine offers. */
export type ModeReason = "explicit" | "last" | "available";

/**
 * Chooses the mode: the explicit setting, else the mode of the last start, else Docker if it is available, else the
 * embedded server. The last mode is remembered, because otherwise the project would switch silently to another, empty
 * database as soon as Docker is started.
 */
export function chooseMode(input: {
  explicit: string | undefined;
  last: Mode | undefined;
  isDockerAvailable: () => boolean;
}): { mode: Mode; reason: ModeReason };

/** Returns the mode of the last successful start, which is stored in `.data/database-mode`. */
export function lastMode(root: string): Mode | undefined;

export function rememberMode(root: string, mode: Mode): void;
