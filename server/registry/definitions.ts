import { notFound } from "@toolplane/framework";
import { createByteLru } from "@toolplane/framework/policies";
import type { Definition } from "../backends/source.ts";
import type { CatalogueService } from "./catalogue.ts";
import { describeKey } from "./service-key.ts";
import type { Store } from "./store.ts";

/** How many bytes of definitions are kept in memory. */
const KEPT_BYTES = 64 * 1024 * 1024;

/** What is needed to call tools, read from the database on first use. */
export interface Definitions {
  get(service: CatalogueService): Promise<Definition>;
}

export function createDefinitions(store: Pick<Store, "definition">): Definitions {
  const cache = createByteLru<Definition>({ maxBytes: KEPT_BYTES });
  const loading = new Map<string, Promise<Definition | undefined>>();

  async function load(digest: string): Promise<Definition | undefined> {
    const definition = await store.definition(digest);
    if (definition) {
      cache.set(digest, definition, definition.bytes.length);
    }
    return definition;
  }

  return {
    async get(service) {
      const digest = service.definition ?? "";
      const known = cache.get(digest);
      if (known) {
        return known;
      }
      let work = loading.get(digest);
      if (!work) {
        work = load(digest).finally(() => loading.delete(digest));
        loading.set(digest, work);
      }
      const definition = await work;
      if (!definition) {
        // Cleaned away after the tool was looked up: the service is gone or has changed.
        throw notFound("definition", describeKey(service), "the service has just changed; try again");
      }
      return definition;
    },
  };
}
