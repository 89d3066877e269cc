/** Shows on standard error how far a long command is: in one line of a terminal, or in a line every ten seconds. */

/** Nothing is shown of a command that ends sooner, ms. */
const firstMs = 1_000;
const terminalMs = 250;
const logMs = 10_000;

export class ProgressLine {
  #nextAt = performance.now() + firstMs;
  #isShown = false;

  constructor(
    private readonly text: (count: number) => string,
    private readonly stream: Pick<NodeJS.WriteStream, "isTTY" | "write"> = process.stderr,
  ) {}

  show(count: number): void {
    if (performance.now() < this.#nextAt) return;
    const { stream } = this;
    this.#nextAt = performance.now() + (stream.isTTY ? terminalMs : logMs);
    stream.write(stream.isTTY ? `\r${this.text(count)}\u001b[K` : `${this.text(count)}\n`);
    this.#isShown = stream.isTTY;
  }

  /** Clears the line of a terminal. */
  end(): void {
    if (this.#isShown) this.stream.write("\r\u001b[K");
    this.#isShown = false;
  }
}
