import { type DescMethod, getOption, hasOption } from "@bufbuild/protobuf";
import {
  type PolicyOptions,
  policy as policyOption,
  Sharing,
} from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { optionalMilliseconds } from "../../config/durations.ts";
import type { AuthorPolicy } from "../invocation.ts";

/** What a method's annotation says about the way it is called. One that cannot be read says nothing. */
export function authorPolicyOf(method: DescMethod): AuthorPolicy {
  const options = read(method);
  return {
    shared: options && sharedOf(options.sharing),
    attempts: options?.retryAttempts || undefined,
    timeoutMs: optionalMilliseconds(options?.timeout),
  };
}

function read(method: DescMethod): PolicyOptions | undefined {
  try {
    return hasOption(method, policyOption) ? getOption(method, policyOption) : undefined;
  } catch {
    return undefined;
  }
}

function sharedOf(sharing: Sharing): boolean | undefined {
  switch (sharing) {
    case Sharing.UNSPECIFIED:
      return undefined;
    case Sharing.ON:
      return true;
    case Sharing.OFF:
      return false;
  }
}
