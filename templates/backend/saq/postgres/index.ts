export { PostgresBroker } from "./broker.js";
export { PostgresServer } from "./server.js";
