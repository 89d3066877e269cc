export { PostgresBroker } from "./broker.js";
export { ConnectionPool } from "./connection/pool.js";
export { TableSession } from "./table-session.js";
