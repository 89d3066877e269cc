import path from "node:path";
import { startDatabase } from "./database.js";
import { forgetOwner, isAbandoned } from "./database-owner.js";
import { run } from "./failure.js";

await run(async () => {
  const root = path.dirname(import.meta.dirname);
  const abandoned = isAbandoned(root);
  const { started } = await startDatabase(root);
  if (abandoned && !started)
    console.log("A make dev-all that was killed left it running. To stop it, run make db-stop.");
  forgetOwner(root);
});
