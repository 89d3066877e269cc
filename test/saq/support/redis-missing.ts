/** In place of the contract, if the tests have no Redis server (jest.config.js). */
import { it } from "@jest/globals";
import { redisMissing } from "../../support/redis.js";

process.stderr.write(`The brokers' contract is not tested on Redis: ${redisMissing}.\n`);
it.skip("the brokers' contract on Redis", () => {});
