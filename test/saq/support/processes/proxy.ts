/** A TCP proxy in front of the database that can stop forwarding while every socket stays open. */
import net from "node:net";

export interface DatabaseProxy {
  /** Address of the database, through the proxy. */
  url: string;
  /** Makes the open connections half-open: no data passes in either direction, and neither side is notified. */
  freeze(): void;
  /** Ends every connection. New connections work. */
  cut(): void;
  close(): Promise<void>;
}

export async function openProxy(target: string): Promise<DatabaseProxy> {
  const { hostname, port } = new URL(target);
  const pairs = new Set<[net.Socket, net.Socket]>();
  const server = net.createServer((near) => {
    const far = net.connect(Number(port), hostname);
    const pair: [net.Socket, net.Socket] = [near, far];
    pairs.add(pair);
    near.pipe(far);
    far.pipe(near);
    for (const socket of pair) {
      socket.on("error", () => {});
      socket.on("close", () => {
        if (pairs.delete(pair)) for (const other of pair) other.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const frozen: net.Socket[] = [];
  return {
    url: Object.assign(new URL(target), { port: String((server.address() as net.AddressInfo).port) }).href,
    freeze: () => {
      for (const pair of pairs) {
        pairs.delete(pair);
        for (const socket of pair) {
          socket.unpipe();
          socket.pause();
          frozen.push(socket);
        }
      }
    },
    cut: () => {
      for (const [near] of pairs) near.destroy();
    },
    close: async () => {
      for (const socket of [...frozen, ...[...pairs].flat()]) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
