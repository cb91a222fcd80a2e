// Reads files as Node and the MCP SDK do, and prints what they hold: `fuzz/reference/mod.rs` must print the same.
//
//   node check.mjs PATH-OF-EVENTSOURCE-PARSER FILE...
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [parserPath, ...files] = process.argv.slice(2);
const { createParser } = await import(pathToFileURL(parserPath).href);

const units = (text) => '"' + [...Array(text.length).keys()].map((at) => text.charCodeAt(at).toString(16).padStart(4, '0')).join('') + '"';

const bits = (number) => {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, number);
  return view.getBigUint64(0).toString(16).padStart(16, '0');
};

const dump = (value) => {
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'number') return bits(value);
  if (typeof value === 'string') return units(value);
  if (Array.isArray(value)) return '[' + value.map((item) => dump(item) + ',').join('') + ']';
  // By code units, as strings compare in JavaScript.
  const keys = Object.keys(value).sort((one, other) => (one < other ? -1 : 1));
  return '{' + keys.map((key) => units(key) + ':' + dump(value[key]) + ',').join('') + '}';
};

const json = (text) => {
  try {
    return dump(JSON.parse(text));
  } catch {
    return 'none';
  }
};

for (const file of files) {
  const text = new TextDecoder().decode(readFileSync(file).subarray(2));
  console.log('body', json(text));
  const parser = createParser({
    onEvent: ({ event, data }) => {
      const isMessage = event === undefined || event === 'message';
      console.log('event', isMessage, units(data), json(data));
    },
  });
  // The parser waits after a last carriage return; with its line feed that is still one line end.
  parser.feed(text.endsWith('\r') ? text + '\n' : text);
}
