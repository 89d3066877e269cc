import path from "node:path";
import { startDatabase } from "./database.js";
import { forgetOwner, isAbandoned } from "./database-owner.js";
import { run } from "./failure.js";

await run(async () => {
  const root = path.dirname(import.meta.dirname);
  const abandoned = isAbandoned(root);
  const { started } = await startDatabase(root);
  if (abandoned && !started)
    console.log("It was left running by a make dev-all that was killed; make db-stop stops it.");
  forgetOwner(root);
});
