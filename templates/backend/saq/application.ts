/**
 * The application's own configuration, for types only. Declaring it gives `req.taskQueues` the names and payloads of
 * the application's queues and tasks; without it the compiler does not know them.
 *
 * @example
 * declare module "../../saq/index.js" {
 *   interface Application {
 *     config: typeof saqConfig;
 *   }
 * }
 */
// biome-ignore lint/suspicious/noEmptyInterface: the application adds its member, and a type cannot be added to
export interface Application {}
