export type Mode = "embedded" | "docker";

/**
 * What was said, else what was used last, else Docker where it answers, else the embedded server. The last mode is kept
 * because starting Docker later would otherwise switch to another, empty database without a word.
 */
export function chooseMode(known: {
  explicit: string | undefined;
  last: Mode | undefined;
  dockerAnswers: () => boolean;
}): { mode: Mode; why: "explicit" | "last" | "found" };

/** The mode of the last successful start, kept in `.data/database-mode`. */
export function lastMode(root: string): Mode | undefined;

export function rememberMode(root: string, mode: Mode): void;
