-- kstatus-compatible: status.observedGeneration, Ready, Stalled.
-- A terminal state wins over a left-over spec.suspend. Waiting for data, a model, a queue or nodes is Progressing.
local hs = {status = "Progressing", message = "Waiting for the operator"}
local st = obj.status or {}
local generation = obj.metadata.generation or 0
local seen = st.observedGeneration ~= nil and st.observedGeneration >= generation
for _, c in ipairs(st.conditions or {}) do
  if seen and c.type == "Stalled" and c.status == "True" then
    return {status = "Degraded", message = c.reason .. ": " .. (c.message or "")}
  end
  if seen and c.type == "Succeeded" and c.status == "True" then
    local model = st.modelVersionName
    return {status = "Healthy", message = model and ("ModelVersion " .. model) or c.message}
  end
  if seen and c.type == "Ready" and c.reason ~= nil then
    hs.message = c.reason .. ": " .. (c.message or "")
  end
end
if obj.spec ~= nil and obj.spec.suspend == true then
  return {status = "Suspended", message = "spec.suspend is true"}
end
if st.progress ~= nil and st.progress.summary ~= nil and st.phase == "Running" then
  hs.message = "Running: " .. st.progress.summary
end
if not seen and st.observedGeneration ~= nil then
  hs.message = "Waiting for generation " .. generation
end
return hs
