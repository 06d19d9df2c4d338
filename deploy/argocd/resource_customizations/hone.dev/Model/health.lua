-- kstatus-compatible: status.observedGeneration, Ready, Stalled.
-- Healthy while every alias points where spec.aliases says; Degraded if it waits for a person.
local hs = {status = "Progressing", message = "Waiting for the operator"}
local st = obj.status or {}
local generation = obj.metadata.generation or 0
local seen = st.observedGeneration ~= nil and st.observedGeneration >= generation
for _, c in ipairs(st.conditions or {}) do
  if seen and c.type == "Stalled" and c.status == "True" then
    return {status = "Degraded", message = c.reason .. ": " .. (c.message or "")}
  end
  if seen and c.type == "Ready" then
    if c.status == "True" then
      return {status = "Healthy", message = c.message}
    end
    hs.message = (c.reason or "NotReady") .. ": " .. (c.message or "")
  end
end
if not seen and st.observedGeneration ~= nil then
  hs.message = "Waiting for generation " .. generation
end
return hs
