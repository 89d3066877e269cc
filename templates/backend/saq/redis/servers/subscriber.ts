/** Receives published messages over one connection, and subscribes again after it was lost. */
import { backoffMs } from "../../core/backoff.js";
import { NoServerError } from "../errors.js";
import type { NodeConnection } from "./node-connection.js";

export interface SubscriberSource {
  open(): Promise<NodeConnection>;
  /** Resolves after `ms`, or when the connections close. */
  pause(ms: number): Promise<void>;
  isClosed(): boolean;
}

interface Subscription {
  readonly channel: string;
  readonly listener: (message: string) => void;
  /** Called when messages may have been missed. */
  readonly onGap: () => void;
}

export class Subscriber {
  readonly #subscriptions = new Set<Subscription>();
  #opening: Promise<NodeConnection> | null = null;
  /** Null while there is no connection. */
  #connection: NodeConnection | null = null;

  #isReopening = false;

  constructor(private readonly source: SubscriberSource) {}

  /** Returns a function that unsubscribes. */
  async subscribe(
    channel: string,
    listener: (message: string) => void,
    onGap: () => void,
  ): Promise<() => Promise<void>> {
    const subscription: Subscription = {
      channel,
      // A connection that is being opened may subscribe to a channel that is unsubscribed meanwhile.
      listener: (message) => {
        if (this.#subscriptions.has(subscription)) listener(message);
      },
      onGap,
    };
    const unsubscribe = async () => {
      this.#subscriptions.delete(subscription);
      if (this.source.isClosed()) return;
      await this.#connection?.unsubscribe(channel, subscription.listener).catch(() => {});
    };
    // While the connection is opened again, which may take as long as an outage, the caller decides how long to wait.
    if (this.#isReopening) throw new NoServerError("the connection for published messages was lost");
    this.#opening ??= this.#openFirst();
    const connection = await this.#opening;
    this.#subscriptions.add(subscription);
    try {
      await connection.subscribe(channel, subscription.listener);
    } catch (error) {
      await unsubscribe();
      throw error;
    }
    return unsubscribe;
  }

  async #openFirst(): Promise<NodeConnection> {
    try {
      return await this.#open();
    } catch (error) {
      this.#opening = null;
      throw error;
    }
  }

  /** Opens a connection and subscribes to all channels. */
  async #open(): Promise<NodeConnection> {
    const connection = await this.source.open();
    try {
      for (const { channel, listener } of this.#subscriptions) await connection.subscribe(channel, listener);
    } catch (error) {
      connection.close();
      throw error;
    }
    this.#connection = connection;
    void connection.ended.then(() => {
      this.#connection = null;
      this.#opening = this.#subscriptions.size === 0 || this.source.isClosed() ? null : this.#reopen();
      this.#opening?.catch(() => {});
    });
    return connection;
  }

  async #reopen(): Promise<NodeConnection> {
    this.#isReopening = true;
    for (let failures = 0; ; failures++) {
      await this.source.pause(backoffMs(failures));
      try {
        const connection = await this.#open();
        this.#isReopening = false;
        for (const { onGap } of this.#subscriptions) onGap();
        return connection;
      } catch (error) {
        if (this.source.isClosed()) throw error;
      }
    }
  }
}
