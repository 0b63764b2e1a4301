import { type Command, Option } from "commander";
import { examples, type Run } from "./run.ts";

export interface CreateKeyOptions {
  readonly role: string;
  readonly expires?: string;
}

export interface ListKeysOptions {
  readonly all?: boolean;
  readonly limit: string;
}

export interface RotateKeyOptions {
  readonly overlap?: string;
  readonly expires?: string;
}

/** The roles that a key can have. */
export const ROLES = ["reader", "caller", "operator"] as const;

export function addKeysCommands(program: Command, run: Run): void {
  const keys = program
    .command("keys")
    .alias("key")
    .summary("make, list, replace and revoke API keys")
    .description(
      "Makes, lists, replaces and revokes the API keys that callers show as their token. Without a verb: lists them.\n" +
        "The server asks for them where auth.required is set; all of this then takes a key of the role operator.",
    )
    .addHelpText("after", examples("toolplane keys", "toolplane keys create ci --role caller --expires 90d"));

  keys
    .command("list", { isDefault: true })
    .description("Lists keys, without what they consist of.")
    .argument("[name]", "only keys of this name")
    .option("--all", "list expired and revoked ones too")
    .option("--limit <n>", "list at most so many; 0 means all", "100")
    .addHelpText(
      "after",
      examples(
        "toolplane keys",
        "toolplane keys list ci --all",
        "toolplane keys --json | jq -r '.apiKeys[].id'",
      ),
    )
    .action(
      run(async (context, name: string | undefined, options: ListKeysOptions) =>
        (await import("../actions/keys.ts")).listKeys(context, name, options),
      ),
    );

  keys
    .command("create")
    .description("Makes a key. It is written to stdout, and shown only this once.")
    .argument("<name>", "who the key stands for; several keys may have one name")
    .addOption(
      new Option("--role <role>", "reader: look; caller: call tools too; operator: everything")
        .choices(ROLES)
        .makeOptionMandatory(),
    )
    .option("--expires <time>", "how long it is taken, such as 90d (for ever)")
    .addHelpText(
      "after",
      examples(
        "toolplane keys create ci --role caller --expires 90d",
        "export TOOLPLANE_TOKEN=$(toolplane keys create ada --role operator)",
      ),
    )
    .action(
      run(async (context, name: string, options: CreateKeyOptions) =>
        (await import("../actions/keys.ts")).createKey(context, name, options),
      ),
    );

  keys
    .command("rotate")
    .description("Makes a further key of the same name and role, and lets the old one expire after a while.")
    .argument("<key>", "the id of the key to replace")
    .option("--overlap <time>", "how long the old key is still taken; 0 ends it at once (24h)")
    .option("--expires <time>", "how long the new key is taken, such as 90d (for ever)")
    .addHelpText(
      "after",
      examples(
        "toolplane keys rotate k3f9a0c2b7q",
        "toolplane keys rotate k3f9a0c2b7q --overlap 1h --expires 90d",
      ),
    )
    .action(
      run(async (context, key: string, options: RotateKeyOptions) =>
        (await import("../actions/keys.ts")).rotateKey(context, key, options),
      ),
    );

  keys
    .command("revoke")
    .description(
      "Ends a key at once for new calls, and streams that run within a minute. Other calls that run come to their end.",
    )
    .argument("<key>", "the id of the key")
    .addHelpText("after", examples("toolplane keys revoke k3f9a0c2b7q"))
    .action(
      run(async (context, key: string) => (await import("../actions/keys.ts")).revokeKey(context, key)),
    );
}
