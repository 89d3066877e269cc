export { PostgresBroker } from "./broker.js";
export { Connections } from "./connections.js";
export { PostgresServer } from "./server.js";
