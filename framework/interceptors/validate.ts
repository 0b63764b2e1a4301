import { type DescMessage, type Message, type Registry, toBinary } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator } from "@bufbuild/protovalidate";
import type { Interceptor } from "@connectrpc/connect";
import { invalidArgument } from "../errors/domain-error.ts";
import { wordRule } from "../errors/rule-wording.ts";

/** How many violations one error names. */
const MAX_VIOLATIONS = 50;
/**
 * The largest message, in bytes, in which more than the first violation is looked for. Violations take hundreds of times
 * as much memory as what they complain about: a few megabytes of empty items would use up all there is.
 */
const MAX_SEARCHED_BYTES = 128 * 1024;

/**
 * Checks every request message, also each one of a stream, against its protovalidate rules, and refuses it with
 * INVALID_ARGUMENT and the paths of the fields. Rules are compiled once per descriptor.
 *
 * @param registry resolves extensions with rules of one's own, and the messages inside `google.protobuf.Any`
 */
export function validateRequests(registry?: Registry): Interceptor {
  const shared = registry === undefined ? {} : { registry };
  const first = createValidator({ ...shared, failFast: true });
  const every = createValidator(shared);

  function validate(desc: DescMessage, message: Message) {
    const result = first.validate(desc, message);
    return result.kind === "invalid" && toBinary(desc, message).byteLength <= MAX_SEARCHED_BYTES
      ? every.validate(desc, message)
      : result;
  }

  function check(desc: DescMessage, message: Message): void {
    const result = validate(desc, message);
    switch (result.kind) {
      case "valid":
        return;
      case "invalid":
        throw invalidArgument(
          result.violations.slice(0, MAX_VIOLATIONS).map((violation) => ({
            field: pathToString(violation.field),
            description: wordRule(violation.message),
            reason: violation.ruleId.toUpperCase().replaceAll(/[^A-Z0-9]+/g, "_"),
          })),
        );
      case "error":
        // The checks recurse as the message does.
        if (result.error.cause instanceof RangeError) {
          throw invalidArgument(
            [{ field: "", description: "the message is nested too deeply" }],
            result.error,
          );
        }
        throw result.error;
    }
  }

  async function* checked(desc: DescMessage, messages: AsyncIterable<Message>) {
    for await (const message of messages) {
      check(desc, message);
      yield message;
    }
  }

  return (next) => (request) => {
    if (request.stream) {
      return next({ ...request, message: checked(request.method.input, request.message) });
    }
    check(request.method.input, request.message);
    return next(request);
  };
}
