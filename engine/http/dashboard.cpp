#include "engine/http/dashboard.hpp"

namespace walferry::http {

const std::string_view dashboard_page = R"HTML(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>walferry</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --text: #1d2430; --dim: #667085; --line: #dfe3ea;
  --accent: #2563a8; --track: #e6e9ef; --good: #1a7f4b; --warn: #a15c07; --bad: #b3261e; --bad-soft: #fdecea; }
@media (prefers-color-scheme: dark) {
  :root { --page: #12161c; --card: #1a2029; --text: #e4e8ee; --dim: #97a1b0; --line: #2b3440; --accent: #5fa3e6;
    --track: #2b3440; --good: #4fc48a; --warn: #e0a34a; --bad: #ff8a80; --bad-soft: #3a1f1e; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 20px 16px 40px; }
h1 { font-size: 20px; margin: 0; } h2 { font-size: 13px; margin: 0 0 8px; color: var(--dim); font-weight: 600; }
header { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: baseline; margin-bottom: 12px; }
.dim { color: var(--dim); } .mono, td.number { font-variant-numeric: tabular-nums; }
.steps { display: flex; flex-wrap: wrap; gap: 6px; margin: 0 0 10px; padding: 0; list-style: none; }
.steps li { padding: 3px 10px; border-radius: 12px; background: var(--track); color: var(--dim); font-size: 13px; }
.steps li.past { color: var(--good); } .steps li.now { background: var(--accent); color: var(--card); font-weight: 600; }
.note { border-left: 4px solid var(--bad); background: var(--bad-soft); padding: 10px 12px; margin: 12px 0;
  border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere; }
.cards { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); margin: 12px 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; min-width: 0; }
.big { font-size: 24px; font-weight: 600; font-variant-numeric: tabular-nums; }
.bar { height: 8px; border-radius: 4px; background: var(--track); overflow: hidden; margin: 8px 0; }
.bar div { height: 100%; background: var(--accent); } .bar.done div { background: var(--good); }
table { border-collapse: collapse; width: 100%; } td, th { padding: 4px 10px 4px 0; text-align: left; }
th { color: var(--dim); font-weight: 600; font-size: 13px; } td.number, th.number { text-align: right; }
.tables tr + tr td { border-top: 1px solid var(--line); } .tables .bar { margin: 0; min-width: 90px; }
.tables td:first-child { overflow-wrap: anywhere; } .scroll { overflow-x: auto; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
</style>
</head>
<body>
<main>
<header><h1>walferry</h1><span id="ends" class="dim"></span></header>
<ol id="steps" class="steps"></ol>
<div id="activity"></div>
<div id="offline" class="note" hidden></div>
<div id="error" class="note" hidden></div>
<section class="cards">
  <div class="card"><h2>Lag</h2><div id="lag" class="big">–</div><div id="lag-more" class="dim mono"></div></div>
  <div class="card"><h2>Copy</h2><div id="copy" class="big">–</div><div id="copy-bar" class="bar"><div></div></div>
    <div id="copy-more" class="dim mono"></div></div>
  <div class="card"><h2>Apply</h2><div id="apply" class="big">–</div><div id="apply-more" class="dim mono"></div></div>
  <div class="card"><h2>WAL kept on the source</h2><div id="slot" class="big">–</div>
    <div id="slot-more" class="dim mono"></div></div>
</section>
<section class="cards">
  <div class="card"><h2>Positions</h2><table id="positions"></table></div>
  <div class="card"><h2>State</h2><table id="state"></table></div>
</section>
<section class="card scroll"><h2 id="tables-title">Tables</h2><table class="tables">
  <thead><tr><th>table</th><th>state</th><th></th><th class="number">copied</th><th class="number">size</th>
    <th class="number">rows</th></tr></thead>
  <tbody id="tables"></tbody></table></section>
</main>
<script>
'use strict';
const phases = ['init', 'schema', 'copy', 'post-data', 'catch-up', 'follow', 'cutover', 'switched', 'finished'];
const tableOrder = { copying: 0, indexing: 1, pending: 2, copied: 3, ready: 4 };
const tablesShown = 200;
const at = id => document.getElementById(id);
const say = (id, text) => { at(id).textContent = text; };

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0;
  while (unit + 1 < units.length && Math.abs(value) >= 1023.5) { value /= 1024; unit += 1; }
  return value.toFixed(unit > 0 && Math.abs(value) < 9.95 ? 1 : 0) + ' ' + units[unit];
}

const count = value => Math.abs(value) < 10 && !Number.isInteger(value) ? value.toFixed(1) :
  Math.round(value).toLocaleString('en-US');

function duration(seconds) {
  if (seconds === null) return '–';
  if (seconds < 9.95) return seconds.toFixed(1) + ' s';
  const whole = Math.round(seconds);
  if (whole < 60) return whole + ' s';
  if (whole < 3600) return Math.floor(whole / 60) + ' min ' + whole % 60 + ' s';
  return Math.floor(whole / 3600) + ' h ' + Math.floor(whole / 60) % 60 + ' min';
}

function bar(holder, fraction) {
  holder.classList.toggle('done', fraction >= 1);
  holder.firstElementChild.style.width = (100 * Math.min(1, Math.max(0, fraction))).toFixed(1) + '%';
}

function pairs(id, rows) {
  at(id).replaceChildren(...rows.map(([name, value, className]) => {
    const row = element('tr');
    row.append(element('td', name, 'dim'), element('td', value, 'mono ' + (className || '')));
    return row;
  }));
}

function drawSteps(phase) {
  const shown = phases.includes(phase) ? phases : [...phases, phase];
  const now = shown.indexOf(phase);
  at('steps').replaceChildren(...shown.map((name, index) =>
    element('li', name, phase === 'aborted' ? (index === now ? 'now' : '') :
      index < now ? 'past' : index === now ? 'now' : '')));
}

function isCopied(table) { return ['copied', 'indexing', 'ready'].includes(table.state); }

function tableFraction(table) {
  if (isCopied(table)) return 1;
  return table.bytes_total > 0 ? Math.min(1, table.bytes_copied / table.bytes_total) : 0;
}

function drawTables(tables) {
  const sorted = [...tables].sort((a, b) => tableOrder[a.state] - tableOrder[b.state] || b.bytes_total - a.bytes_total);
  say('tables-title', sorted.length > tablesShown ?
    'Tables (' + tablesShown + ' of ' + sorted.length + ': unfinished and largest first)' :
    'Tables (' + sorted.length + ')');
  at('tables').replaceChildren(...sorted.slice(0, tablesShown).map(table => {
    const row = element('tr');
    const holder = element('div', undefined, 'bar');
    holder.append(element('div'));
    bar(holder, tableFraction(table));
    const barCell = element('td');
    barCell.append(holder);
    row.append(element('td', table.schema + '.' + table.name),
      element('td', table.state, table.state === 'ready' ? 'good' : ''), barCell,
      element('td', bytes(table.bytes_copied), 'number'), element('td', bytes(table.bytes_total), 'number'),
      element('td', count(table.rows_copied), 'number'));
    return row;
  }));
}

function drawSlot(slot) {
  if (!slot) {
    say('slot', '–');
    say('slot-more', 'no slot');
    return;
  }
  say('slot', bytes(slot.retained_wal_bytes));
  at('slot').className = 'big ' + (slot.wal_status === 'lost' || slot.wal_status === 'unreserved' ? 'bad' : '');
  say('slot-more', slot.name + ', ' + (slot.active ? 'active' : 'not active') + ', WAL ' + slot.wal_status +
    (slot.safe_wal_size === null ? '' : ', ' + bytes(slot.safe_wal_size) + ' until it is lost'));
}

function draw(status) {
  document.title = status.phase + ' · ' + status.migration + ' · walferry';
  say('ends', status.migration + (status.way_back_of ? ', the way back of ' + status.way_back_of : '') + ':  ' + status.source + '  →  ' + status.target);
  drawSteps(status.phase);
  say('activity', [status.activity, ...status.waits].filter(text => text).join(' · '));
  const error = status.last_error;
  at('error').hidden = !error;
  if (error) say('error', (status.apply_stopped ? 'Apply has stopped. ' : 'Last error ') + '(' + error.at + ')\n' + error.text);

  const applying = ['catch-up', 'follow', 'cutover'].includes(status.phase);
  say('lag', applying ? duration(status.lag_seconds) : bytes(status.lag_bytes));
  say('lag-more', applying ? bytes(status.lag_bytes) + ' of WAL' : 'of WAL, applied once the copy is complete');
  const copy = status.copy;
  say('copy', (Math.floor(1000 * copy.fraction_done) / 10).toFixed(1) + ' %');
  bar(at('copy-bar'), copy.fraction_done);
  say('copy-more', bytes(copy.bytes_copied) + ' of ' + bytes(copy.bytes_total) + ', ' + count(copy.rows_copied) + ' rows, ' +
    copy.tables_copied + ' of ' + copy.tables_total + ' tables' + (status.phase === 'copy' ?
    '; ' + bytes(copy.bytes_per_second) + '/s (10 s), ' + bytes(copy.bytes_per_second_long) + '/s (2 min)' +
    (copy.eta_seconds === null ? '' : ', ' + duration(copy.eta_seconds) + ' left') : ''));
  const apply = status.apply;
  say('apply', count(apply.changes_per_second) + ' changes/s');
  say('apply-more', count(apply.changes_per_second_long) + '/s over 2 min; ' + count(apply.inserts) + ' inserts, ' +
    count(apply.updates) + ' updates, ' + count(apply.deletes) + ' deletes; ' + count(apply.source_transactions) +
    ' transactions in ' + count(apply.target_transactions) + ' groups');
  drawSlot(status.slot);
  pairs('positions', [['source', status.source_lsn], ['received', status.received_lsn], ['spooled', status.spooled_lsn],
    ['applied', status.applied_lsn], ['confirmed', status.confirmed_lsn]]);
  const connected = on => on ? ['connected', 'good'] : ['not connected', 'bad'];
  pairs('state', [['source', ...connected(status.source_connected)],
    ['target', ...(applying ? connected(status.target_connected) : ['no changes are applied now', ''])],
    ['apply', status.apply_stopped ? 'stopped' : 'not blocked', status.apply_stopped ? 'bad' : 'good'],
    ['spool on disk', bytes(status.spool_bytes)], ['queue in memory', bytes(status.queue_bytes)],
    ['running since', status.started_at || '–']]);
  drawTables(status.tables);
}

async function refresh() {
  try {
    const response = await fetch('status', { cache: 'no-store', signal: AbortSignal.timeout(5000) });
    if (!response.ok) throw new Error('HTTP ' + response.status);
    draw(await response.json());
    at('offline').hidden = true;
  } catch (failure) {
    say('offline', 'walferry does not answer (' + failure.message + '). What is shown may be old. The slot on the source ' +
      'keeps its WAL while walferry is away.');
    at('offline').hidden = false;
  }
  setTimeout(refresh, 1000);
}
refresh();
</script>
</body>
</html>
)HTML";

}  // namespace walferry::http
