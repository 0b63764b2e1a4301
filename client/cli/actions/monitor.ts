import type { ServiceFilterOptions } from "../commands/services.ts";
import type { Context } from "../context.ts";
import { watchServices } from "./watch.ts";
export async function monitor(
  context: Context,
  name: string | undefined,
  options: ServiceFilterOptions,
): Promise<undefined> {
  return await watchServices(context, name, options);
}
