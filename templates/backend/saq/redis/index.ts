export { RedisBroker } from "./broker.js";
export { RedisConnection } from "./connection.js";
