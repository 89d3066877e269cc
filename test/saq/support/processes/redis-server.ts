/** A Redis server for one test, which kills and pauses it. Its data are in a folder that outlives the server. */
import { type RedisServer, startRedisServer } from "../../../support/redis.js";

export class OwnRedis {
  readonly #folder: string;
  readonly #settings: readonly string[];
  #server: RedisServer | null = null;

  /** `settings`: as the server's command line takes them. */
  constructor(folder: string, settings: readonly string[] = []) {
    this.#folder = folder;
    this.#settings = settings;
  }

  /** Starts the server. Returns its address, which is the same at each start. */
  async start(): Promise<string> {
    const { port } = this.#server ?? {};
    this.#server = await startRedisServer({
      folder: this.#folder,
      settings: this.#settings,
      ...(port === undefined ? {} : { port }),
    });
    return this.#server.url;
  }

  kill(): void {
    this.#signal("SIGKILL");
  }

  /** Stops the server: connections stay open, and no command gets a response. */
  pause(): void {
    this.#signal("SIGSTOP");
  }

  resume(): void {
    this.#signal("SIGCONT");
  }

  destroy(): void {
    this.resume();
    this.#signal("SIGTERM");
  }

  #signal(signal: NodeJS.Signals): void {
    if (!this.#server) return;
    try {
      process.kill(this.#server.pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }
}
