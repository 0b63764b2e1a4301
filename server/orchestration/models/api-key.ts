import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import type { ModelProviderSettings } from "../../config/orchestration.ts";
import { describeSource, readSource } from "../../config/secrets.ts";

/** What stands in messages where a key stood. */
const REDACTED = "[key]";

/**
 * The key of a provider, read anew so that it may be rotated; undefined where the provider wants none. Throws
 * FAILED_PRECONDITION that names the variable when there should be one and is not.
 */
export function readApiKey(provider: ModelProviderSettings, env: NodeJS.ProcessEnv): string | undefined {
  if (!provider.apiKey) {
    return undefined;
  }
  const key = readSource(provider.apiKey, env)?.trim();
  // Anything else is no header's value, and would be told with the key in it.
  if (!key || !/^[\x21-\x7e]+$/.test(key)) {
    const place = describeSource(provider.apiKey);
    throw new DomainError({
      code: Code.FailedPrecondition,
      reason: "MODEL_KEY_MISSING",
      message: `The provider "${provider.name}" has no usable API key: set ${place} to one, on one line and in plain characters`,
      metadata: { provider: provider.name },
      preconditions: [
        { type: "CONFIGURATION", subject: place, description: `Holds the API key of "${provider.name}".` },
      ],
    });
  }
  return key;
}

/** Takes the key, and whatever looks like one, out of a provider's words. */
export function withoutKeys(text: string, key: string | undefined): string {
  const known = key === undefined ? text : text.replaceAll(key, REDACTED);
  return known.replaceAll(/\b(sk|pk|key|xai|gsk)-[A-Za-z0-9_*-]{8,}/g, REDACTED);
}
