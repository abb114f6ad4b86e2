"use strict";

// Text enters the page only as text nodes and attributes, never as markup.
const SVG = "http://www.w3.org/2000/svg";

function furnished(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

function element(tag, attributes = {}, ...children) {
  return furnished(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes = {}, ...children) {
  return furnished(document.createElementNS(SVG, tag), attributes, children);
}

function labelled(text, control) {
  return element("label", {}, text, control);
}

function choice(options, chosen, onChange) {
  const select = element("select", { change: () => onChange(select.value) });
  for (const [value, text] of options) select.append(element("option", { value }, text));
  select.value = chosen;
  return select;
}

function percent(value) {
  return value === null ? "–" : value.toFixed(1);
}

function signed(value) {
  return (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(1);
}

function capital(word) {
  return word[0].toUpperCase() + word.slice(1);
}

// A difference where both are known, else null.
function difference(mine, other) {
  return mine === null || other === null ? null : mine - other;
}
