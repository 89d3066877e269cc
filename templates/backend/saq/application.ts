/**
 * Types only: the configuration of the application. An application that declares it gets the names and payloads of its
 * queues and tasks in `req.taskQueues`. Without the declaration the compiler does not know them.
 *
 * @example
 * declare module "../../saq/index.js" {
 *   interface Application {
 *     config: typeof saqConfig;
 *   }
 * }
 */
// biome-ignore lint/suspicious/noEmptyInterface: an application adds a member here; a type alias cannot be extended
export interface Application {}
