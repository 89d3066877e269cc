export { PostgresBroker } from "./broker.js";
export { ConnectionPool, type PoolOptions } from "./connection/pool.js";
export { TableSession } from "./table-session.js";
