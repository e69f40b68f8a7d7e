// The two browsers: answers with their verdicts, and sampled completions or given pairs. The part of the address after
// # holds what is shown: #games?left=dpo-1&right=sft&only="12".

const PAGE = 5;

function badge(kind, text) {
  return element("span", {class: `badge ${kind}`}, text);
}

// Options of a list: texts, or [value, text].
function fill(select, options, chosen) {
  for (const option of options) {
    const [value, text] = Array.isArray(option) ? option : [option, option];
    select.append(element("option", {value, ...(value === chosen ? {selected: ""} : {})}, text));
  }
}

// The words of `text` as a regular expression that finds them in any case, null if there are none.
function searched(text) {
  return text ? new RegExp(text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "giu") : null;
}

function contains(texts, search) {
  return !search || texts.some((text) => text.search(search) >= 0);
}

// A list of cards with a form above it and pages below. `rows(state)` gives what passes the filters, `name(row)` what
// the address calls a row, `card(row, state, link)` draws one with its link, and `note(state)` follows the count.
// `state` has the form's values.
function browser(id, rows, name, card, note) {
  const form = document.getElementById(`${id}-form`), list = document.getElementById(`${id}-list`);
  const count = document.getElementById(`${id}-count`), pager = document.getElementById(`${id}-pager`);
  const defaults = Object.fromEntries(new FormData(form));
  let page = 0, only = null;

  function address(alone) {
    const values = [...new FormData(form)].filter(([key, value]) => value !== defaults[key]);
    if ("markdown" in defaults && !form.markdown.checked) values.push(["markdown", "off"]);
    if (alone !== null) values.push(["only", alone]);
    else if (page) values.push(["page", page + 1]);
    return values.length ? `#${id}?${new URLSearchParams(values)}` : `#${id}`;
  }

  function draw(moved) {
    const values = Object.fromEntries(new FormData(form));
    const state = {...values, search: searched(values.search.trim()), literally: !values.markdown};
    const found = rows(state).filter((row) => only === null || name(row) === only);
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.max(0, Math.min(page, pages - 1));
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map((row) => {
      const link = element("a", {href: address(name(row)), title: "a link to this one alone"}, "link");
      return card(row, state, link);
    }));
    count.replaceChildren(`${found.length} found`, note(state));
    if (only !== null) {
      const all = element("button", {type: "button"}, "show all");
      all.addEventListener("click", () => { only = null; draw(true); });
      count.append(" ", all);
    }
    const step = (label, by) => {
      const button = element("button", {type: "button"}, label);
      button.disabled = page + by < 0 || page + by >= pages;
      button.addEventListener("click", () => { page += by; draw(true); form.scrollIntoView(); });
      return button;
    };
    pager.replaceChildren(...(pages > 1 ? [step("back", -1), `page ${page + 1} of ${pages}`, step("next", 1)] : []));
    // A page inside another one, such as Snakemake's report, may have no address to change.
    if (moved) try { history.replaceState(null, "", address(only)); } catch { return; }
  }

  // Show what the address says, if it is about this browser.
  function follow() {
    const [place, query] = location.hash.slice(1).split("?");
    if (place !== id || query === undefined) return;
    const values = new URLSearchParams(query);
    form.reset();
    for (const control of form.elements) {
      if (control.type === "checkbox") control.checked = !values.has(control.name);
      else if (values.has(control.name)) control.value = values.get(control.name);
      if (control.selectedIndex === -1) control.value = defaults[control.name];
    }
    page = parseInt(values.get("page") || 1, 10) - 1 || 0;
    only = values.get("only");
    draw(false);
    document.getElementById(id).scrollIntoView();
  }

  let waiting;
  form.addEventListener("input", (event) => {
    page = 0;
    only = null;
    clearTimeout(waiting);
    // Every letter of a search would be searched for.
    if (event.target.type === "search") waiting = setTimeout(() => draw(true), 150);
    else draw(true);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", follow);
  draw(false);
  follow();
}

// The two games of a match as the left policy saw them. `match`: [winner, winner, words, words], of which a winner is
// 1, 2, 0 for a tie, or null; `turned`: the left policy is the second. A match is won in both games, or it is a tie.
function seen(match, turned) {
  const [first, second] = match.slice(0, 2).map((winner) => (turned && winner ? 3 - winner : winner));
  const outcome = first === null || second === null ? "error" : first !== second || !first ? "tie" : first === 1 ? "left" : "right";
  return {winners: [first, second], outcome, disagree: outcome !== "error" && first !== second, words: match.slice(2)};
}

function games(data) {
  const form = document.getElementById("games-form"), {policies, questions, answers, verdicts, ratings, start} = data;
  const judges = [...new Set(verdicts.map((one) => one.judge))];
  fill(form.left, policies, policies.find((name) => name !== start));
  fill(form.right, policies, start);
  fill(form.category, [["", "all"], ...new Set(questions.map((question) => question.category))]);
  fill(form.judge, [["", "any"], ...judges]);
  fill(form.verdict, [["", "all"], ["left", "left wins"], ["tie", "tie"], ["right", "right wins"],
    ["disagree", "orders disagree"], ["error", "no verdict"]]);

  // The verdicts on the two policies that are shown: [{judge, turned, matches}].
  const about = (state) => verdicts
    .filter(({judge, models}) => models.includes(state.left) && models.includes(state.right) &&
      state.left !== state.right && (!state.judge || judge === state.judge))
    .map((one) => ({...one, turned: one.models[0] !== state.left}));
  const matches = (state, question) => about(state).flatMap(({turned, matches: of}) =>
    of[question.place].filter(Boolean).map((match) => seen(match, turned)));
  const rated = (state, policy, question, turn) => ratings
    .filter((one) => one.policy === policy && (!state.judge || one.judge === state.judge))
    .map((one) => ({judge: one.judge, given: one.ratings[question.place][turn]}))
    .filter((one) => one.given);
  questions.forEach((question, place) => { question.place = place; });

  function rows(state) {
    return questions.filter((question) => {
      if (state.category && question.category !== state.category) return false;
      const found = matches(state, question);
      if (state.verdict === "disagree" && !found.some((match) => match.disagree)) return false;
      if (state.verdict && state.verdict !== "disagree" && !found.some((match) => match.outcome === state.verdict)) return false;
      const both = [state.left, state.right];
      return contains([...question.turns, ...both.flatMap((name) => answers[name][question.place]),
        ...found.flatMap((match) => match.words),
        ...both.flatMap((name) => question.turns.flatMap((_, turn) =>
          rated(state, name, question, turn).map((one) => one.given[1])))], state.search);
    });
  }

  // Words of a judge, unfolded where the searched ones are among them.
  function words(title, parts, state) {
    const folded = element("details", {}, element("summary", {}, title));
    for (const [heading, text] of parts) {
      folded.append(...(heading ? [element("h4", {}, heading)] : []), said(text, state.search, state.literally));
    }
    if (state.search && contains(parts.map((part) => part[1]), state.search)) folded.open = true;
    return folded;
  }

  function verdict(judge, match, state) {
    const {left, right} = state;
    const name = (winner) => (winner === null ? "no verdict" : winner === 0 ? "tie" : `${winner === 1 ? left : right} wins`);
    const text = match.outcome === "error" ? "no verdict" : match.outcome === "tie" ? "tie" : `${state[match.outcome]} wins`;
    const kind = {left: "win", right: "loss"}[match.outcome] || match.outcome;
    const title = element("span", {}, badge(kind, text), ` by ${judge} `, match.disagree ? badge("disagree", "orders disagree") : "");
    const orders = match.turned ? [[right, left], [left, right]] : [[left, right], [right, left]];
    const parts = orders.map(([one, two], game) => [`${one} first, ${two} second: ${name(match.winners[game])}`, match.words[game]]);
    return words(title, parts, state);
  }

  function card(question, state, link) {
    const made = element("article", {class: "card"}, element("header", {},
      `question ${question.id} · `, element("bdi", {}, question.category), " ", link));
    question.turns.forEach((asked, turn) => {
      const block = element("div", turn ? {class: "turn"} : {},
        element("div", {class: "said"}, element("b", {}, "user"), said(asked, state.search, state.literally)));
      const pair = element("div", {class: "answers pair"});
      for (const name of state.left === state.right ? [state.left] : [state.left, state.right]) {
        const text = answers[name][question.place][turn];
        const side = element("div", {}, element("h4", {}, name), said(text || "(says nothing)", state.search, state.literally));
        for (const {judge, given: [score, why]} of rated(state, name, question, turn)) {
          side.append(words(score === null ? `no rating by ${judge}` : `${score} points by ${judge}`, [["", why]], state));
        }
        pair.append(side);
      }
      block.append(pair);
      for (const {judge, turned, matches: of} of about(state)) {
        const match = of[question.place][turn];
        if (match) block.append(verdict(judge, {...seen(match, turned), turned}, state));
      }
      made.append(block);
    });
    return made;
  }

  const note = (state) => (state.left === state.right || about(state).length ? "" :
    `; no judge compared ${state.left} with ${state.right}`);
  browser("games", rows, (question) => JSON.stringify(question.id), card, note);
}

function samples(data) {
  const form = document.getElementById("samples-form");
  if (!form) return;
  const shown = new Map(data.samples.map((one) => [one.policy, one]));
  fill(form.policy, data.samples.map((one) => [one.policy, one.given ? `${one.policy} (given pairs)` : one.policy]));
  fill(form.split, [["", "all"], "train", "test"]);
  const texts = (row) => [...row.messages.map((message) => message.content), ...row.completions.map((one) => one.text)];
  const rows = (state) => shown.get(state.policy).prompts.filter((row) =>
    (!state.split || row.split === state.split) && contains(texts(row), state.search));

  function card(row, state, link) {
    const made = element("article", {class: "card"}, element("header", {}, `${row.split} prompt ${row.id} `, link));
    for (const message of row.messages) {
      made.append(element("div", {class: "said"}, element("b", {}, message.role), said(message.content, state.search, state.literally)));
    }
    for (const one of row.completions) {
      const reward = one.reward === null ? "no reward" : one.reward.toFixed(2);
      const left = element("div", {class: "reward"}, reward, one.role ? [element("br"), badge(one.role, one.role)] : []);
      const text = (one.text || "(says nothing)") + (one.cut ? " …" : "");
      made.append(element("div", {class: "completion"}, left, said(text, state.search, state.literally)));
    }
    return made;
  }
  browser("samples", rows, (row) => row.id, card, () => "");
}

async function start() {
  for (const literal of document.querySelectorAll("#vibe .text")) literal.replaceWith(said(literal.textContent, null, false));
  const packed = Uint8Array.from(atob(document.getElementById("packed").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = await new Response(stream).json();
  games(data);
  samples(data);
  document.body.dataset.ready = "yes";
}

start();
