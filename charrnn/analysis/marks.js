// Which units follow a text that was marked: their correlation with being inside it.

let marks = null;  // 1 where the text is marked
const marksOf = () => (marks ??= new Uint8Array(length));

// The positions that are selected in a text, from the first to behind the last; null where none are.
function selectedRange() {
  const selection = getSelection();
  if (selection.isCollapsed || !selection.rangeCount) return null;
  const range = selection.getRangeAt(0);
  let first = length, last = -1;
  for (const { spans, pane } of models) {
    if (!range.intersectsNode(pane)) continue;
    for (const span of spans) {
      if (!range.intersectsNode(span)) continue;
      first = Math.min(first, span.position);
      last = Math.max(last, span.position);
    }
  }
  return last < 0 ? null : [first, last + 1];
}

function markSelection() {
  const range = selectedRange();
  if (range) marksOf().fill(1, ...range);
  getSelection().removeAllRanges();
  showMarks();
  find("about").textContent = range ? find("about").textContent
    : "Select a part of the text with the mouse first; several parts may be marked in turn.";
}

function unmark() {
  marksOf().fill(0);
  showMarks();
}

function showMarks() {
  const marked = marksOf(), some = marked.some((x) => x);
  for (const model of models) {
    model.spans.forEach((span, t) => span.classList.toggle("marked", marked[t] === 1));
    model.measures = model.measures.filter((measure) => measure.name !== MARKED);
    if (some) model.measures.push(markedMeasure(model));
    model.measure = some ? model.measures.length - 1 : 0;
  }
  find("unmark").disabled = !some;
  for (const model of [...models].sort((a) => (a === m ? 1 : -1)))
    enter(model, { unit: undefined, measure: model.measure });
}

// Pearson's correlation of each unit's signal with the marks.
function markedMeasure(model) {
  const marked = marksOf(), values = signalOf(model), mean = marked.reduce((a, b) => a + b, 0) / length;
  const strengths = Array.from({ length: model.count }, (_, unit) => {
    let sum = 0, squares = 0, both = 0;
    for (let t = 0, at = unit * length; t < length; t++, at++) {
      const value = values[at];
      sum += value;
      squares += value * value;
      both += marked[t] * value;
    }
    const spread = (squares - (sum * sum) / length) * length * mean * (1 - mean);
    return spread > 1e-9 ? (both - sum * mean) / Math.sqrt(spread) : 0;
  });
  return { name: MARKED, mean, strengths };
}
