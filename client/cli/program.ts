import { Command, CommanderError } from "commander";
import pico from "picocolors";
import { DEFAULT_URL } from "../default-url.ts";
import { addAgentCommands } from "./commands/agent.ts";
import { addBreakersCommands } from "./commands/breakers.ts";
import { addCachesCommands } from "./commands/caches.ts";
import { addCallCommand } from "./commands/call.ts";
import { addCompletionCommands } from "./commands/completion.ts";
import { addDiscoverCommand } from "./commands/discover.ts";
import { addHealthCommand } from "./commands/health.ts";
import { addKeysCommands } from "./commands/keys.ts";
import { addLimitsCommand } from "./commands/limits.ts";
import { addMetricsCommand } from "./commands/metrics.ts";
import { addMonitorCommand } from "./commands/monitor.ts";
import { addOrchestrateCommand } from "./commands/orchestrate.ts";
import { addOrchestrationRunCommands } from "./commands/orchestration-runs.ts";
import { addPoolsCommand } from "./commands/pools.ts";
import { addRegistrationCommands } from "./commands/registration.ts";
import type { Action, Run } from "./commands/run.ts";
import { addRuntimeCommand } from "./commands/runtime.ts";
import { addServeCommand } from "./commands/serve.ts";
import { addServicesCommands } from "./commands/services.ts";
import { addStatsCommand } from "./commands/stats.ts";
import { addTestCommands } from "./commands/test.ts";
import { addToolsCommands } from "./commands/tools.ts";
import { addVersionCommand } from "./commands/version.ts";
import { addWorkflowCommands } from "./commands/workflow.ts";
import { type Context, createContext, type GlobalOptions } from "./context.ts";
import { ExitCode } from "./exit-code.ts";
import { hasColors, type Io, type Output } from "./io.ts";
import { reportError } from "./report-error.ts";
import { createTerminal } from "./terminal.ts";
import { UsageError } from "./usage-error.ts";

/** The command line: the commands, and a way to run them. */
export interface Program {
  readonly command: Command;
  /** Runs what the arguments say (without `node` and the script) and returns the exit code. */
  run(args: readonly string[]): Promise<number>;
}

export function createProgram(io: Io): Program {
  let exitCode: number = ExitCode.ok;
  const run: Run = (action) =>
    async function (this: Command, ...args) {
      exitCode = await execute(io, this, action, args);
    };
  const command = createRoot(io);
  addServeCommand(command, run);
  addRegistrationCommands(command, run);
  addDiscoverCommand(command, run);
  addServicesCommands(command, run);
  addToolsCommands(command, run);
  addCallCommand(command, run);
  addOrchestrateCommand(command, run);
  addWorkflowCommands(command, run);
  addAgentCommands(command, run);
  addOrchestrationRunCommands(command, run);
  addTestCommands(command, run);
  addHealthCommand(command, run);
  addMonitorCommand(command, run);
  addStatsCommand(command, run);
  addBreakersCommands(command, run);
  addLimitsCommand(command, run);
  addCachesCommands(command, run);
  addPoolsCommand(command, run);
  addRuntimeCommand(command, run);
  addMetricsCommand(command, run);
  addKeysCommands(command, run);
  addVersionCommand(command, run);
  addCompletionCommands(command, run);
  return {
    command,
    async run(args) {
      exitCode = ExitCode.ok;
      try {
        // Not an option of the program: commands have a `--version` of their own, which names a service's version.
        const isVersion = args[0] === "--version" || args[0] === "-V";
        await command.parseAsync(isVersion ? ["version", "--client"] : [...args], { from: "user" });
      } catch (error) {
        if (!(error instanceof CommanderError)) throw error;
        return await reportMisuse(io, command, args, error);
      }
      return exitCode;
    },
  };
}

async function execute<Args extends readonly unknown[]>(
  io: Io,
  command: Command,
  action: Action<Args>,
  args: readonly unknown[],
): Promise<number> {
  const options = command.optsWithGlobals<GlobalOptions>();
  const terminal = createTerminal(io, command, { json: options.json === true, color: options.color });
  let context: Context | undefined;
  try {
    context = createContext(terminal, options);
    // Commander hands over the declared arguments, the options, and last the command itself.
    const code = await action(context, ...(args.slice(0, -1) as unknown as Args));
    return io.signal.aborted ? ExitCode.interrupted : (code ?? ExitCode.ok);
  } catch (error) {
    return await reportError(terminal, context?.url, error);
  } finally {
    context?.close();
  }
}

/** What commander does not understand, in the words of all other errors. */
async function reportMisuse(
  io: Io,
  root: Command,
  args: readonly string[],
  error: CommanderError,
): Promise<number> {
  // The help that was asked for is written already, and so is the one for a command without its verb.
  if (error.code === "commander.helpDisplayed" || error.exitCode === 0) return ExitCode.ok;
  if (error.code === "commander.help") return ExitCode.usage;
  const terminal = createTerminal(io, commandOf(root, args), {
    json: args.includes("--json"),
    color: !args.includes("--no-color"),
  });
  const [text = "", ...rest] = error.message.split("\n");
  const hint = rest.join(" ").replaceAll(/[()]/g, "");
  return await reportError(terminal, undefined, new UsageError(misuse(text), hint === "" ? undefined : hint));
}

/** The command that the arguments mean, as far as they name one. */
function commandOf(root: Command, args: readonly string[]): Command {
  let command = root;
  for (const word of args) {
    const next = command.commands.find((each) => each.name() === word || each.aliases().includes(word));
    if (next === undefined && !word.startsWith("-")) break;
    command = next ?? command;
  }
  return command;
}

/** Commander's sentences, as this command line would say them. */
function misuse(text: string): string {
  const sentence = text
    .replace(/^error: /, "")
    .replace(/^missing required argument '(.*)'$/, "<$1> is missing")
    .replace(/^option '(.*)' argument missing$/, "$1 needs a value")
    .replace(
      /^command-argument value '(.*)' is invalid for argument '(.*)'\. Allowed choices are (.*)\.$/,
      '"$1" is no $2: choose from $3',
    )
    .replace(
      /^too many arguments.* Expected (\d+) arguments? but got (\d+).*$/,
      "There are $2 arguments where $1 are expected",
    )
    .replaceAll(/'([^']*)'/g, '"$1"');
  return sentence.charAt(0).toUpperCase() + sentence.slice(1);
}

function createRoot(io: Io): Command {
  const root = new Command("toolplane");
  const colorsFor = (output: Output) => hasColors(output, io.env, root.opts<GlobalOptions>().color);
  const width = (output: Output) => (output.isTTY === true ? Math.min(output.columns ?? 80, 100) : 100);
  // Commander takes the colours out again where the output is to have none.
  const paint = pico.createColors(true);
  return root
    .usage("<command> [options]")
    .description(
      "Registers services, finds the tools they offer, calls and orchestrates them, and runs tests.",
    )
    .option("--url <url>", `the server (TOOLPLANE_URL, else ${DEFAULT_URL})`)
    .option("--token <token>", "the bearer token to present (TOOLPLANE_TOKEN)")
    .option("--timeout <time>", "how long to wait, such as 5s or 2m (30s; calls of tools: 60s)")
    .option("--json", "write JSON for programs; streams write one document a line")
    .option("--no-color", "write without colours, as NO_COLOR and pipes do")
    .helpOption("-h, --help", "explain the command, with examples")
    .helpCommand("help [command]", "explain a command")
    .addHelpText("after", `\n${EXAMPLES}\n\n${EXIT_CODES}`)
    .exitOverride()
    .configureHelp({
      showGlobalOptions: true,
      subcommandTerm: (command) =>
        [command.name(), ...command.registeredArguments.map(argumentTerm)].join(" "),
      styleTitle: (title) => paint.bold(title),
      styleCommandText: (text) => paint.cyan(text),
      styleSubcommandTerm: (text) => paint.cyan(text),
      styleOptionTerm: (text) => paint.cyan(text),
      styleArgumentTerm: (text) => paint.cyan(text),
    })
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      // `run` reports what is wrong.
      outputError: () => {},
      getOutHasColors: () => colorsFor(io.stdout),
      getErrHasColors: () => colorsFor(io.stderr),
      getOutHelpWidth: () => width(io.stdout),
      getErrHelpWidth: () => width(io.stderr),
    });
}

function argumentTerm(argument: { required: boolean; variadic: boolean; name(): string }): string {
  const name = argument.variadic ? `${argument.name()}...` : argument.name();
  return argument.required ? `<${name}>` : `[${name}]`;
}

const EXAMPLES = `Examples:
  $ toolplane serve
  $ toolplane register weather 127.0.0.1:50051
  $ toolplane tools search forecast
  $ toolplane call weather.GetForecast city=Berlin days:=3
  $ toolplane workflow run nightly city=Berlin
  $ toolplane orchestrate "Compare the weather of Berlin and Rome"
  $ toolplane test report -- npx vitest run`;

const EXIT_CODES = `Exit codes:
  0 done   1 failed   2 wrong usage   3 not found   4 unavailable   5 invalid arguments
  6 not permitted   7 timed out   8 refused by a limit   9 a run did not come to its end
  130 interrupted`;
