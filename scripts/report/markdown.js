"use strict";
// Markdown of models as nodes. The text is hostile: it only ever becomes text of elements that are named here, so
// that there is no link, no image, no style and no markup to escape from. The address of a link or an image is shown.
// HTML and mathematics stay as they were written.

const DEEPEST = 8;  // lists and quotations in each other
const MOST_MARKS = 1000;  // of searched words in a text
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([\w+#.-]{0,30})[^`]*$/;
const HEADING = /^ {0,3}#{1,6}[ \t]+(.*)$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|(\d{1,9})[.)])( {1,4}|\t|$)/;
const DELIMITERS = /^ *\|?(?: *:?-+:? *\|)+ *(?::?-+:? *)?$/;
// Code, mathematics, strong, emphasized and deleted text, an image or a link, an escaped character, a line break.
const INLINE = new RegExp([
  /(?<!`)(?<code>`{1,20})(?<coded>[^`](?:[^]{0,1000}?[^`])??)\k<code>(?!`)/,
  /(?<math>\$\$[^]{1,1000}?\$\$|\$(?=[^\s$])[^$\n]{1,200}(?<!\s)\$(?!\d)|\\\([^]{1,1000}?\\\)|\\\[[^]{1,1000}?\\\])/,
  /(?<two>\*\*|__|~~)(?=\S)(?<strong>[^]{0,1000}?\S)\k<two>(?![*~])/,
  /(?<![\w*_])(?<one>[*_])(?=[^\s*_])(?<emphasis>[^]{0,1000}?[^\s])\k<one>(?![\w*_])/,
  /(?<image>!?)\[(?<label>[^[\]]{0,500})\]\((?<address>[^()\s]{0,2000}(?:\([^()\s]{0,200}\)[^()\s]{0,2000})?)[^()\n]{0,200}\)/,
  /\\(?<escaped>[*_`#~])/,
  /(?<newline><br ?\/?>)/,
].map((part) => part.source).join("|"), "g");

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  for (const child of children.flat()) made.append(child);
  return made;
}

// `text` as nodes, what the regular expression `search` finds marked.
function marked(text, search) {
  const nodes = document.createDocumentFragment();
  let from = 0, number = 0;
  for (const found of search ? text.matchAll(search) : []) {
    if (++number > MOST_MARKS) break;
    nodes.append(text.slice(from, found.index), element("mark", {}, found[0]));
    from = found.index + found[0].length;
  }
  nodes.append(text.slice(from));
  return nodes;
}

// What stands in a line: text, code, emphasis.
function inline(text, search, depth = 0) {
  const nodes = document.createDocumentFragment();
  if (depth > DEEPEST) return marked(text, search);
  let from = 0;
  for (const found of text.matchAll(INLINE)) {
    const {code, coded, math, two, strong, one, emphasis, image, label, address, escaped, newline} = found.groups;
    nodes.append(marked(text.slice(from, found.index), search));
    from = found.index + found[0].length;
    if (code) nodes.append(element("code", {}, marked(coded, search)));
    else if (math) nodes.append(element("span", {class: "math"}, marked(math, search)));
    else if (two) nodes.append(element(two === "~~" ? "del" : "strong", {}, inline(strong, search, depth + 1)));
    else if (one) nodes.append(element("em", {}, inline(emphasis, search, depth + 1)));
    else if (escaped) nodes.append(marked(escaped, search));
    else if (newline) nodes.append(element("br"));
    else {
      nodes.append(image ? "[image: " : "", inline(label, search, depth + 1), image ? ", " : " (",
        element("span", {class: "address"}, marked(address, search)), image ? "]" : ")");
    }
  }
  nodes.append(marked(text.slice(from), search));
  return nodes;
}

// The number of lines from `start` on for which `belongs(line, its place)` is true.
function run(lines, start, belongs) {
  let end = start;
  while (end < lines.length && belongs(lines[end], end)) end++;
  return end - start;
}

function cells(line) {
  return line.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

// The element that begins at lines[start], and how many lines it takes.
function block(lines, start, search, depth) {
  const line = lines[start];
  let found;
  if ((found = FENCE.exec(line))) {
    const fence = found[1], closes = (one) => one.startsWith(fence) && !one.replaceAll(fence[0], "");
    const length = run(lines, start + 1, (one) => !closes(one.trim()));
    const code = lines.slice(start + 1, start + 1 + length).join("\n");
    return [element("pre", {}, element("code", {}, marked(code, search))), length + 2];
  }
  if ((found = HEADING.exec(line))) return [element("h5", {}, inline(found[1], search)), 1];
  if (RULE.test(line)) return [element("hr"), 1];
  if (QUOTE.test(line) && depth < DEEPEST) {
    const length = run(lines, start, (one) => QUOTE.test(one));
    const quoted = lines.slice(start, start + length).map((one) => one.replace(QUOTE, ""));
    return [element("blockquote", {}, blocks(quoted, search, depth + 1)), length];
  }
  if (ITEM.test(line) && depth < DEEPEST) return list(lines, start, search, depth);
  if (line.includes("|") && DELIMITERS.test(lines[start + 1] || "")) {
    const length = run(lines, start + 2, (one) => one.includes("|"));
    const row = (name) => (one) => element("tr", {}, cells(one).map((cell) => element(name, {}, inline(cell, search))));
    const table = element("table", {}, element("thead", {}, row("th")(line)),
      element("tbody", {}, lines.slice(start + 2, start + 2 + length).map(row("td"))));
    return [element("div", {class: "wide"}, table), length + 2];
  }
  const length = 1 + run(lines, start + 1, (one, place) => one.trim() && !begins(lines, place, depth));
  return [element("p", {}, inline(lines.slice(start, start + length).join("\n"), search)), length];
}

// Whether something other than a paragraph begins at lines[place].
function begins(lines, place, depth) {
  const line = lines[place], nested = depth < DEEPEST;
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || (nested && (QUOTE.test(line) || ITEM.test(line))) ||
    (line.includes("|") && DELIMITERS.test(lines[place + 1] || ""));
}

// A list: its items have marks of the same kind, and what is indented deeper than a mark belongs to its item.
function list(lines, start, search, depth) {
  const [, , mark, number] = ITEM.exec(lines[start]);
  const same = (line) => { const found = ITEM.exec(line); return found && !RULE.test(line) && (number ? found[3] : found[2] === mark); };
  const made = element(number ? "ol" : "ul", number ? {start: number} : {});
  let place = start;
  while (place < lines.length && same(lines[place])) {
    const [whole, before] = ITEM.exec(lines[place]);
    const inside = (one) => one.search(/\S/) > before.length;
    const length = 1 + run(lines, place + 1, (one, at) =>
      inside(one) || (one.trim() ? lines[at - 1].trim() && !begins(lines, at, depth) : inside(lines[at + 1] || "")));
    const own = lines.slice(place + 1, place + length);
    const indent = Math.min(whole.length, ...own.filter(inside).map((one) => one.search(/\S/)));
    const content = [lines[place].slice(whole.length), ...own.map((one) => one.slice(Math.min(indent, Math.max(0, one.search(/\S/)))))];
    made.append(element("li", {}, blocks(content, search, depth + 1)));
    place += length;
    if (!(lines[place] || "").trim() && same(lines[place + 1] || "")) place++;
  }
  return [made, place - start];
}

function blocks(lines, search, depth) {
  const nodes = document.createDocumentFragment();
  for (let place = 0; place < lines.length;) {
    if (!lines[place].trim()) { place++; continue; }
    const [made, length] = block(lines, place, search, depth);
    nodes.append(made);
    place += length;
  }
  return nodes;
}

// A text of a model as an element: as Markdown, or literally.
function said(text, search, literally) {
  const nodes = literally ? marked(text, search) : blocks(text.split(/\r\n?|\n/), search, 0);
  return element("div", {class: literally ? "text literal" : "text"}, nodes);
}
