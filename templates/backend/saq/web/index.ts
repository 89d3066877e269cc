export { createWebRouter } from "./router.js";
