import { describe, expect, it } from "@jest/globals";
import { chooseMode } from "../../templates/scripts/database-mode.js";

const docker = () => true;
const noDocker = () => false;
const notAsked = () => {
  throw new Error("Docker must not be asked: the answer is known.");
};

describe("the mode of the project's own database", () => {
  it("is the value of DB_MODE, if DB_MODE is set", () => {
    expect(chooseMode({ explicit: "embedded", last: "docker", dockerAnswers: notAsked }).mode).toBe(
      "embedded",
    );
    expect(chooseMode({ explicit: "docker", last: "embedded", dockerAnswers: notAsked }).mode).toBe("docker");
  });

  it("is the previous mode, so that a later start of Docker does not switch to an empty database", () => {
    expect(chooseMode({ explicit: undefined, last: "embedded", dockerAnswers: notAsked }).mode).toBe(
      "embedded",
    );
    expect(chooseMode({ explicit: undefined, last: "docker", dockerAnswers: notAsked }).mode).toBe("docker");
  });

  it("is Docker the first time if Docker answers, otherwise embedded", () => {
    expect(chooseMode({ explicit: undefined, last: undefined, dockerAnswers: docker }).mode).toBe("docker");
    expect(chooseMode({ explicit: undefined, last: undefined, dockerAnswers: noDocker }).mode).toBe(
      "embedded",
    );
  });

  it("is refused when DB_MODE is not a known mode", () => {
    expect(() => chooseMode({ explicit: "Docker", last: undefined, dockerAnswers: notAsked })).toThrow(
      "DB_MODE=Docker is not known. Leave it empty (automatic), or write embedded or docker.",
    );
  });
});
