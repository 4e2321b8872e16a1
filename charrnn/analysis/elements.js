// Elements of a page: found by their id, and made. Every page's script begins with these.

const find = (id) => document.getElementById(id);

function make(parent, tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}
