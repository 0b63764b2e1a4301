import type { FileCoverage } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { attribute } from "./xml.ts";

/** Writes a tracefile of lcov: lines with their hits, and how many functions and branches there are and were taken. */
export async function* writeLcov(files: AsyncIterable<FileCoverage>): AsyncGenerator<string> {
  for await (const file of files) {
    const covered = file.lines.filter(({ hits }) => hits > 0).length;
    const lines = file.lines.map(({ line, hits }) => `DA:${line},${hits}\n`).join("");
    yield `TN:\nSF:${file.file.replace(/[\r\n]/g, " ")}\n${counts("FN", file.functionsTotal, file.functionsCovered)}` +
      `${lines}LF:${file.lines.length}\nLH:${covered}\n` +
      `${counts("BR", file.branchesTotal, file.branchesCovered)}end_of_record\n`;
  }
}

function counts(name: string, total: number, covered: number): string {
  return total === 0 ? "" : `${name}F:${total}\n${name}H:${covered}\n`;
}

/** Writes Cobertura's XML, with lines and their hits. Which line branches stand in is not known, so they are rates. */
export async function* writeCobertura(files: AsyncIterable<FileCoverage>): AsyncGenerator<string> {
  yield '<?xml version="1.0" encoding="UTF-8"?>\n<coverage version="1.9">\n<packages>\n<package name="">\n<classes>\n';
  for await (const file of files) {
    const covered = file.lines.filter(({ hits }) => hits > 0).length;
    const about =
      attribute("name", file.file) +
      attribute("filename", file.file) +
      attribute("line-rate", rate(covered, file.lines.length)) +
      attribute("branch-rate", rate(file.branchesCovered, file.branchesTotal));
    const lines = file.lines.map(({ line, hits }) => `<line number="${line}" hits="${hits}"/>\n`);
    yield `<class${about}>\n<methods/>\n<lines>\n${lines.join("")}</lines>\n</class>\n`;
  }
  yield "</classes>\n</package>\n</packages>\n</coverage>\n";
}

function rate(covered: number, total: number): string {
  return total === 0 ? "1" : (covered / total).toFixed(4);
}
