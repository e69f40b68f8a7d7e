"use strict";
// The two browsers: answers with their verdicts, and sampled completions. What models wrote only ever becomes
// text (textContent), never markup.

const PAGE = 5;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// `text` as nodes, the searched words marked.
function marked(text, search) {
  if (!search) return [text];
  const nodes = [], lower = text.toLowerCase();
  let from = 0;
  for (let at = lower.indexOf(search); at >= 0; at = lower.indexOf(search, from)) {
    nodes.push(text.slice(from, at), element("mark", {}, text.slice(at, at + search.length)));
    from = at + search.length;
  }
  return [...nodes, text.slice(from)];
}

function paragraph(kind, text, search, before) {
  return element("p", {class: kind}, ...(before ? [element("b", {}, before)] : []), ...marked(text, search));
}

function badge(kind, text) {
  return element("span", {class: `badge ${kind}`}, text || kind);
}

function fill(select, names, chosen) {
  select.append(...names.map((name) => element("option", name === chosen ? {selected: ""} : {}, name)));
}

// A list of cards with a form above it and pages below. `rows(state)` gives what passes the filters, `card(row,
// state)` draws one; `state` holds the form's values.
function browser(id, rows, card) {
  const form = document.getElementById(`${id}-form`), list = document.getElementById(`${id}-list`);
  const count = document.getElementById(`${id}-count`), pager = document.getElementById(`${id}-pager`);
  let page = 0;
  function draw() {
    const state = Object.fromEntries(new FormData(form));
    state.search = state.search.trim().toLowerCase();
    const found = rows(state), pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(page, pages - 1);
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map((row) => card(row, state)));
    count.textContent = found.length === 1 ? "1 found" : `${found.length} found`;
    const step = (label, by) => {
      const button = element("button", {type: "button"}, label);
      button.disabled = page + by < 0 || page + by >= pages;
      button.addEventListener("click", () => { page += by; draw(); form.scrollIntoView(); });
      return button;
    };
    pager.replaceChildren(...(pages > 1 ? [step("back", -1), `page ${page + 1} of ${pages}`, step("next", 1)] : []));
  }
  form.addEventListener("input", () => { page = 0; draw(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  draw();
}

function games(data) {
  const form = document.getElementById("games-form"), {questions, answers, verdicts, start} = data;
  const names = Object.keys(answers);
  const judged = names.filter((name) => name in verdicts);
  fill(form.left, names, judged[0]);
  fill(form.right, names, start);
  fill(form.category, ["all", ...new Set(questions.map((question) => question.category))]);
  fill(form.verdict, ["all", "win", "tie", "loss", "error"]);
  // The policy whose verdicts against the start policy the two sides show.
  const subject = (state) => [state.left, state.right].find((name) => name in verdicts);
  const of = (state, question) => (verdicts[subject(state)] || {})[question.id] || [];

  function rows(state) {
    return questions.filter((question) => {
      if (state.category !== "all" && question.category !== state.category) return false;
      const turns = of(state, question);
      if (state.verdict !== "all" && !turns.some((turn) => turn.outcome === state.verdict)) return false;
      if (!state.search) return true;
      const words = turns.flatMap((turn) => turn.games.map((game) => game.words));
      const texts = [...question.turns, ...answers[state.left][question.id], ...answers[state.right][question.id], ...words];
      return texts.some((text) => text.toLowerCase().includes(state.search));
    });
  }

  function card(question, state) {
    const made = element("article", {class: "card"}, element("header", {}, `question ${question.id} · ${question.category}`));
    question.turns.forEach((asked, turn) => {
      const block = element("div", turn ? {class: "turn"} : {}, paragraph("said", asked, state.search, "user"));
      const pair = element("div", {class: "answers pair"});
      for (const name of [state.left, state.right]) {
        const said = answers[name][question.id][turn] || "(says nothing)";
        pair.append(element("div", {}, element("h4", {}, name), paragraph("text", said, state.search)));
      }
      block.append(pair);
      for (const verdict of of(state, question).filter((one) => one.turn === turn + 1)) {
        const words = element("details", {}, element("summary", {}, "the judge's words"));
        for (const game of verdict.games) {
          words.append(element("h4", {}, `${game.first} first, ${game.second} second: ${game.winner}`),
            paragraph("text", game.words, state.search));
        }
        if (state.search && verdict.games.some((game) => game.words.toLowerCase().includes(state.search))) words.open = true;
        block.append(badge(verdict.outcome), ` ${subject(state)} against ${start}`, words);
      }
      made.append(block);
    });
    return made;
  }
  browser("games", rows, card);
}

function samples(data) {
  const form = document.getElementById("samples-form");
  if (!form) return;
  fill(form.policy, Object.keys(data.samples));
  fill(form.split, ["all", "train", "test"]);
  const texts = (row) => [...row.messages.map((message) => message.content), ...row.completions.map((one) => one.text)];
  const rows = (state) => data.samples[state.policy].filter((row) =>
    (state.split === "all" || row.split === state.split) &&
    (!state.search || texts(row).some((text) => text.toLowerCase().includes(state.search))));

  function card(row, state) {
    const made = element("article", {class: "card"}, element("header", {}, `${row.split} prompt ${row.id}`));
    for (const message of row.messages) made.append(paragraph("said", message.content, state.search, message.role));
    for (const one of row.completions) {
      const reward = one.reward === null ? "no reward" : one.reward.toFixed(2);
      const left = element("div", {class: "reward"}, reward, ...(one.role ? [element("br"), badge(one.role)] : []));
      const text = (one.text || "(says nothing)") + (one.cut ? " …" : "");
      made.append(element("div", {class: "completion"}, left, paragraph("text", text, state.search)));
    }
    return made;
  }
  browser("samples", rows, card);
}

async function start() {
  const packed = Uint8Array.from(atob(document.getElementById("packed").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = await new Response(stream).json();
  games(data);
  samples(data);
  document.body.dataset.ready = "yes";
}

start();
