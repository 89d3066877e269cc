import { describe, expect, it } from "@jest/globals";
import { chooseMode } from "../../templates/scripts/database-mode.js";

const docker = () => true;
const noDocker = () => false;
const notAsked = () => {
  throw new Error("Docker must not be asked: the answer is known.");
};

describe("the mode of the project's own database", () => {
  it("is what DB_MODE says, before anything else", () => {
    expect(chooseMode({ explicit: "embedded", last: "docker", dockerAnswers: notAsked }).mode).toBe(
      "embedded",
    );
    expect(chooseMode({ explicit: "docker", last: "embedded", dockerAnswers: notAsked }).mode).toBe("docker");
  });

  it("is the one used last, so that starting Docker later does not switch to an empty database", () => {
    expect(chooseMode({ explicit: undefined, last: "embedded", dockerAnswers: notAsked }).mode).toBe(
      "embedded",
    );
    expect(chooseMode({ explicit: undefined, last: "docker", dockerAnswers: notAsked }).mode).toBe("docker");
  });

  it("is Docker where it answers, else embedded, the first time", () => {
    expect(chooseMode({ explicit: undefined, last: undefined, dockerAnswers: docker }).mode).toBe("docker");
    expect(chooseMode({ explicit: undefined, last: undefined, dockerAnswers: noDocker }).mode).toBe(
      "embedded",
    );
  });

  it("is refused when it is no mode", () => {
    expect(() => chooseMode({ explicit: "Docker", last: undefined, dockerAnswers: notAsked })).toThrow(
      "DB_MODE=Docker is not known. Leave it empty (automatic), or write embedded or docker.",
    );
  });
});
