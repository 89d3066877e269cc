import { describe, expect, it } from "@jest/globals";
import { chooseMode } from "../../templates/scripts/database-mode.js";

const docker = () => true;
const noDocker = () => false;
const notCalled = () => {
  throw new Error("Docker must not be looked for: the mode is known.");
};

type Input = Parameters<typeof chooseMode>[0];

const mode = (
  explicit: Input["explicit"],
  last: Input["last"],
  isDockerAvailable: Input["isDockerAvailable"],
) => chooseMode({ explicit, last, isDockerAvailable }).mode;

describe("the mode of the project's own database", () => {
  it("is the value of DB_MODE, if DB_MODE is set", () => {
    expect(mode("embedded", "docker", notCalled)).toBe("embedded");
    expect(mode("docker", "embedded", notCalled)).toBe("docker");
  });

  it("is the previous mode, so that a later start of Docker does not switch to an empty database", () => {
    expect(mode(undefined, "embedded", notCalled)).toBe("embedded");
    expect(mode(undefined, "docker", notCalled)).toBe("docker");
  });

  it("is Docker the first time if Docker is available, otherwise embedded", () => {
    expect(mode(undefined, undefined, docker)).toBe("docker");
    expect(mode(undefined, undefined, noDocker)).toBe("embedded");
  });

  it("is refused when DB_MODE is not a known mode", () => {
    expect(() => mode("Docker", undefined, notCalled)).toThrow(
      "DB_MODE=Docker is not a known mode. Leave it empty (automatic), or write embedded or docker.",
    );
  });
});
