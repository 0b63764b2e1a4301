import { type Catalogue, type CatalogueService, lastSegment } from "./catalogue.ts";
import { toolPredicate } from "./filter.ts";
import { toolName } from "./messages.ts";
import type { Suggest } from "./resolve.ts";
import { distanceWithin } from "./search/similar-terms.ts";
import type { ToolSearch } from "./search/tool-search.ts";
import { compareText } from "./version-order.ts";

const MAX_SUGGESTIONS = 3;
/** So many tools are compared with a name: all of them in most registries. In larger ones the search picks the rest. */
const MAX_COMPARED = 5_000;
const MAX_HITS = 20;

/** How many letters of a name may be wrong. */
const MAX_MISTAKES = 2;
const LETTERS_PER_MISTAKE = 3;
/** A shorter beginning, or part, of a name says nothing; within the service that was named, two letters say something. */
const MIN_PART = 4;
const MIN_BEGINNING_IN_SERVICE = 2;

/** Suggests the tools whose names resemble one that does not exist: their short names, best first, each once. */
export function createSuggest(catalogue: Catalogue, search: Pick<ToolSearch, "searchIndexed">): Suggest {
  return (name, environment) => {
    const wanted = toWanted(name);
    /** How far each is from what was wanted. */
    const found = new Map<string, number>();

    function compare(service: CatalogueService, index: number): void {
      const distance = nameDistance(wanted, service.name, service.tools?.names[index] ?? "");
      if (distance !== undefined && service.tools) {
        found.set(toolName(service, service.tools.shortName(index)), distance);
      }
    }

    const there = catalogue.services().filter((service) => service.environment === environment);
    const isNamed = ({ name: known }: CatalogueService) => known.toLowerCase() === wanted.service;
    let compared = 0;
    for (const service of [...there.filter(isNamed), ...there.filter((service) => !isNamed(service))]) {
      for (const index of service.tools?.names.keys() ?? []) {
        if (compared++ < MAX_COMPARED) {
          compare(service, index);
        }
      }
      if (compared >= MAX_COMPARED) {
        break;
      }
    }
    if (compared >= MAX_COMPARED) {
      const matches = {
        ...toolPredicate(catalogue, undefined),
        service: (service: CatalogueService) => service.environment === environment,
      };
      for (const { location } of search.searchIndexed(name, matches, MAX_HITS)) {
        compare(location.service, location.index);
      }
    }
    return [...found]
      .sort(([left, l], [right, r]) => l - r || compareText(left, right))
      .slice(0, MAX_SUGGESTIONS)
      .map(([suggestion]) => suggestion);
  };
}

/** A name that does not exist, in small letters. */
interface Wanted {
  /** What stands before the first dot; empty when there is none. */
  readonly service: string;
  /** What stands behind the last one. */
  readonly tool: string;
}

function toWanted(name: string): Wanted {
  const text = name.toLowerCase();
  return { service: text.slice(0, Math.max(0, text.indexOf("."))), tool: lastSegment(text) };
}

/** How little a tool is what was wanted; undefined when it is something else. */
function nameDistance(wanted: Wanted, service: string, tool: string): number | undefined {
  const known = service.toLowerCase();
  const elsewhere =
    known === wanted.service ? 0 : (spellingDistance(wanted.service, known) ?? MAX_MISTAKES + 1);
  const name = lastSegment(tool).toLowerCase();
  const misspelt = spellingDistance(wanted.tool, name);
  if (misspelt !== undefined) {
    // A service that is spelt right makes up for a mistake in the name of the tool.
    return misspelt * 2 + elsewhere;
  }
  const afterMistakes = (MAX_MISTAKES + 1) * 2 + elsewhere;
  if (name.startsWith(wanted.tool)) {
    return wanted.tool.length >= (elsewhere === 0 ? MIN_BEGINNING_IN_SERVICE : MIN_PART)
      ? afterMistakes
      : undefined;
  }
  return wanted.tool.length >= MIN_PART && name.includes(wanted.tool) ? afterMistakes + 1 : undefined;
}

/** How many letters of a word are wrong; undefined when that is too many for its length. */
function spellingDistance(word: string, known: string): number | undefined {
  const mistakes = Math.min(MAX_MISTAKES, Math.floor(word.length / LETTERS_PER_MISTAKE));
  if (Math.abs(word.length - known.length) > mistakes) {
    return undefined;
  }
  // Names begin and end alike so often that only what is between is worth a comparison.
  const shorter = Math.min(word.length, known.length);
  let start = 0;
  while (start < shorter && word[start] === known[start]) {
    start++;
  }
  let end = 0;
  while (end < shorter - start && word.at(-1 - end) === known.at(-1 - end)) {
    end++;
  }
  const left = known.slice(start, known.length - end);
  const right = word.slice(start, word.length - end);
  if (!distanceWithin(left, right, mistakes)) {
    return undefined;
  }
  let distance = mistakes;
  while (distance > 0 && distanceWithin(left, right, distance - 1)) {
    distance--;
  }
  return distance;
}
