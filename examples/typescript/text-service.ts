import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  Difficulty,
  type Readability,
  ReadabilitySchema,
  type TextService,
} from "./gen/examples/text/v1/text_service_pb.js";
import { count, grade, sentencesOf, type TextCounts, topWords } from "./readability.ts";

/** How fast adults read English prose silently (Brysbaert, 2019). */
const WORDS_PER_MINUTE = 238;

export const textService: ServiceImpl<typeof TextService> = {
  analyzeText(request) {
    const counts = count(request.text);
    return {
      ...counts,
      readability: rate(counts),
      readingTime: durationFromMs(Math.round((counts.words / WORDS_PER_MINUTE) * 60_000)),
      topWords: Object.fromEntries(topWords(request.text, request.topWords ?? 5)),
    };
  },

  async *gradeSentences(request) {
    for (const [index, sentence] of sentencesOf(request.text).entries()) {
      const readability = rate(count(sentence));
      if (readability.difficulty >= request.atLeast) {
        yield { number: index + 1, sentence, readability };
      }
    }
  },
};

function rate(counts: TextCounts): Readability {
  const { readingEase, grade: years } = grade(counts);
  const difficulty =
    readingEase >= 70 ? Difficulty.EASY : readingEase >= 50 ? Difficulty.STANDARD : Difficulty.HARD;
  return create(ReadabilitySchema, { readingEase, grade: years, difficulty });
}
